// Package topics knows what a stream may send so far, and how many streams were opened and left, for each key.
package topics

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const Refusal = `{"error": {"message": "too many requests"}}`

type Topic struct {
	lock                  sync.Mutex
	signal                chan struct{} // closed by the next signal
	opened, left, signals int
}

var topics sync.Map

func Of(key string) *Topic {
	topic, _ := topics.LoadOrStore(key, &Topic{signal: make(chan struct{})})
	return topic.(*Topic)
}

func (t *Topic) Go() {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.signals++
	close(t.signal)
	t.signal = make(chan struct{})
}

func (t *Topic) State() string {
	t.lock.Lock()
	defer t.lock.Unlock()
	return fmt.Sprintf(`{"opened": %d, "left": %d}`, t.opened, t.left)
}

// Send calls send with each event when it may be sent. The client has left when send fails or left is closed.
func (t *Topic) Send(query func(string) string, last string, left <-chan struct{}, send func(string) error) {
	number, count, burst, size, tick := integer(last), integer(query("count")), integer(query("burst")), integer(query("size")), integer(query("tick"))
	t.count(&t.opened)
	for number < count {
		number++
		if !t.wait(number, burst, tick, left) || send(fmt.Sprintf("id: %d\ndata: %d %s\n\n", number, number, strings.Repeat("x", size))) != nil {
			t.count(&t.left)
			return
		}
	}
}

func (t *Topic) wait(number, burst, tick int, left <-chan struct{}) bool {
	for number > burst {
		t.lock.Lock()
		signals, signal := t.signals, t.signal
		t.lock.Unlock()
		var ticked <-chan time.Time
		if tick > 0 {
			ticked = time.After(time.Duration(tick) * time.Millisecond)
		} else if number <= burst+signals {
			break
		}
		select {
		case <-left:
			return false
		case <-ticked:
			return true
		case <-signal:
		}
	}
	return true
}

func (t *Topic) count(counter *int) {
	t.lock.Lock()
	defer t.lock.Unlock()
	*counter++
}

func integer(text string) int {
	number, _ := strconv.Atoi(text)
	return number
}

// Served calls plain, or secure where the environment names a certificate.
func Served(plain func(address string) error, secure func(address, certificate, key string) error) {
	address, certificate := "127.0.0.1:"+os.Getenv("PORT"), os.Getenv("CERTIFICATE")
	if certificate == "" {
		panic(plain(address))
	}
	panic(secure(address, certificate, os.Getenv("KEY")))
}
