// Streams one chat completion with go-openai and prints what it made of it: main <base URL> <model> <key>
package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"

	openai "github.com/sashabaranov/go-openai"
)

type outcome struct {
	Text   string  `json:"text"`
	Finish *string `json:"finish"`
	Error  *string `json:"error"`
}

func main() {
	config := openai.DefaultConfig(os.Args[3])
	config.BaseURL = os.Args[1] + "/v1"
	var result outcome
	if err := ask(openai.NewClientWithConfig(config), os.Args[2], &result); err != nil {
		message := err.Error()
		result.Error = &message
	}
	_ = json.NewEncoder(os.Stdout).Encode(result)
}

func ask(client *openai.Client, model string, result *outcome) error {
	stream, err := client.CreateChatCompletionStream(context.Background(), openai.ChatCompletionRequest{
		Model:    model,
		Messages: []openai.ChatCompletionMessage{{Role: openai.ChatMessageRoleUser, Content: "Was macht der Strom?"}},
	})
	if err != nil {
		return err
	}
	defer stream.Close()
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, choice := range chunk.Choices {
			result.Text += choice.Delta.Content
			if choice.FinishReason != "" {
				reason := string(choice.FinishReason)
				result.Finish = &reason
			}
		}
	}
}
