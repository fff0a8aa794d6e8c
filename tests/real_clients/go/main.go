// Run one Go client: `realclients CLIENT URL OPTIONS`. It prints events and its end as lines of JSON, as clients.py says.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
	"github.com/r3labs/sse/v2"
	goopenai "github.com/sashabaranov/go-openai"
)

type options struct {
	Headers map[string]string `json:"headers"`
	Key     string            `json:"key"`
	Model   string            `json:"model"`
	Prompt  string            `json:"prompt"`
}

func say(line map[string]string) {
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		panic(err)
	}
}

func token(text string) {
	if text != "" {
		say(map[string]string{"id": "", "type": "delta", "data": text})
	}
}

func orMessage(kind string) string {
	if kind == "" {
		return "message"
	}
	return kind
}

func withR3labs(url string, asked options) (string, error) {
	client := sse.NewClient(url)
	client.Headers = asked.Headers
	if client.Headers == nil {
		client.Headers = map[string]string{}
	}
	client.ReconnectNotify = func(err error, _ time.Duration) { say(map[string]string{"lost": err.Error()}) }
	client.ResponseValidator = func(_ *sse.Client, response *http.Response) error {
		if response.StatusCode == http.StatusOK {
			return nil
		}
		defer response.Body.Close()
		text, _ := io.ReadAll(response.Body)
		return fmt.Errorf("%d %s", response.StatusCode, text)
	}
	err := client.SubscribeRaw(func(event *sse.Event) {
		if len(event.Data) > 0 {
			say(map[string]string{"id": string(event.ID), "type": orMessage(string(event.Event)), "data": string(event.Data)})
		}
	})
	return "the stream ended", err
}

func openaiClient(url string, asked options) openai.Client {
	all := []option.RequestOption{option.WithBaseURL(url + "/v1"), option.WithAPIKey(asked.Key)}
	for name, value := range asked.Headers {
		all = append(all, option.WithHeader(name, value))
	}
	return openai.NewClient(all...)
}

func withOpenAIChat(url string, asked options) (string, error) {
	client := openaiClient(url, asked)
	stream := client.Chat.Completions.NewStreaming(context.Background(), openai.ChatCompletionNewParams{
		Model:    asked.Model,
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(asked.Prompt)},
	})
	end := "unfinished"
	for stream.Next() {
		for _, choice := range stream.Current().Choices {
			token(choice.Delta.Content)
			if choice.FinishReason != "" {
				end = choice.FinishReason
			}
		}
	}
	return end, stream.Err()
}

func withOpenAIResponses(url string, asked options) (string, error) {
	client := openaiClient(url, asked)
	stream := client.Responses.NewStreaming(context.Background(), responses.ResponseNewParams{
		Model: asked.Model,
		Input: responses.ResponseNewParamsInputUnion{OfString: openai.String(asked.Prompt)},
	})
	end := "unfinished"
	for stream.Next() {
		switch event := stream.Current().AsAny().(type) {
		case responses.ResponseTextDeltaEvent:
			token(event.Delta)
		case responses.ResponseCompletedEvent:
			end = string(event.Response.Status)
		case responses.ResponseErrorEvent:
			return end, errors.New(event.Message)
		}
	}
	return end, stream.Err()
}

type withHeaders map[string]string

func (fields withHeaders) RoundTrip(request *http.Request) (*http.Response, error) {
	for name, value := range fields {
		request.Header.Set(name, value)
	}
	return http.DefaultTransport.RoundTrip(request)
}

func withGoOpenAI(url string, asked options) (string, error) {
	config := goopenai.DefaultConfig(asked.Key)
	config.BaseURL = url + "/v1"
	config.HTTPClient = &http.Client{Transport: withHeaders(asked.Headers)}
	stream, err := goopenai.NewClientWithConfig(config).CreateChatCompletionStream(context.Background(), goopenai.ChatCompletionRequest{
		Model:    asked.Model,
		Messages: []goopenai.ChatCompletionMessage{{Role: goopenai.ChatMessageRoleUser, Content: asked.Prompt}},
	})
	if err != nil {
		return "", err
	}
	defer stream.Close()
	end := "unfinished"
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return end, nil
		}
		if err != nil {
			return end, err
		}
		for _, choice := range answer.Choices {
			token(choice.Delta.Content)
			if choice.FinishReason != "" {
				end = string(choice.FinishReason)
			}
		}
	}
}

func main() {
	clients := map[string]func(string, options) (string, error){
		"r3labs/sse":          withR3labs,
		"openai-go chat":      withOpenAIChat,
		"openai-go responses": withOpenAIResponses,
		"go-openai chat":      withGoOpenAI,
	}
	var asked options
	if err := json.Unmarshal([]byte(os.Args[3]), &asked); err != nil {
		panic(err)
	}
	end, err := clients[os.Args[1]](os.Args[2], asked)
	if err != nil {
		say(map[string]string{"error": err.Error()})
	} else {
		say(map[string]string{"end": end})
	}
}
