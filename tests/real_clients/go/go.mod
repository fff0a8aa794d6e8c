module realclients

go 1.25.0

require (
	github.com/openai/openai-go/v3 v3.51.0 // earlier ones fail at a comment with a blank line behind; later ones take long to compile
	github.com/r3labs/sse/v2 v2.10.0
	github.com/sashabaranov/go-openai v1.43.0
)

require (
	github.com/tidwall/gjson v1.19.0 // indirect
	github.com/tidwall/match v1.1.1 // indirect
	github.com/tidwall/pretty v1.2.1 // indirect
	github.com/tidwall/sjson v1.2.5 // indirect
	golang.org/x/net v0.57.0 // indirect
	gopkg.in/cenkalti/backoff.v1 v1.1.0 // indirect
)
