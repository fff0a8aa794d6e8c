package main

import (
	"fmt"
	"net/http"

	"servers/topics"
)

func events(response http.ResponseWriter, request *http.Request) {
	response.Header().Set("Content-Type", "text/event-stream")
	query := request.URL.Query()
	if query.Get("close") != "" {
		response.Header().Set("Transfer-Encoding", "identity") // only the end of the connection delimits the body then
	}
	flusher := response.(http.Flusher)
	flusher.Flush()
	topics.Of(query.Get("key")).Send(query.Get, request.Header.Get("Last-Event-ID"), request.Context().Done(), func(event string) error {
		_, err := fmt.Fprint(response, event)
		flusher.Flush()
		return err
	})
}

func main() {
	http.HandleFunc("/{server}/{mode}/events", events)
	http.HandleFunc("/{server}/{mode}/refusal", func(response http.ResponseWriter, request *http.Request) {
		response.Header().Set("Content-Type", "text/event-stream")
		response.WriteHeader(http.StatusTooManyRequests)
		fmt.Fprint(response, topics.Refusal)
	})
	http.HandleFunc("/go", func(response http.ResponseWriter, request *http.Request) {
		topics.Of(request.URL.Query().Get("key")).Go()
	})
	http.HandleFunc("/state", func(response http.ResponseWriter, request *http.Request) {
		fmt.Fprint(response, topics.Of(request.URL.Query().Get("key")).State())
	})
	topics.Served(
		func(address string) error { return http.ListenAndServe(address, nil) },
		func(address, certificate, key string) error {
			return http.ListenAndServeTLS(address, certificate, key, nil)
		},
	)
}
