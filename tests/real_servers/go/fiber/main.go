package main

import (
	"bufio"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/utils"

	"servers/topics"
)

func events(c *fiber.Ctx) error {
	query := map[string]string{}
	for name, value := range c.Queries() {
		query[utils.CopyString(name)] = utils.CopyString(value) // the context is used again while the body is written
	}
	last := utils.CopyString(c.Get("Last-Event-ID"))
	c.Set("Content-Type", "text/event-stream")
	c.Context().SetBodyStreamWriter(func(writer *bufio.Writer) {
		value := func(name string) string { return query[name] }
		topics.Of(query["key"]).Send(value, last, nil, func(event string) error {
			writer.WriteString(event)
			return writer.Flush()
		})
	})
	return nil
}

func main() {
	app := fiber.New(fiber.Config{DisableStartupMessage: true})
	app.All("/:server/:mode/events", events)
	app.Get("/:server/:mode/refusal", func(c *fiber.Ctx) error {
		c.Set("Content-Type", "text/event-stream")
		return c.Status(fiber.StatusTooManyRequests).SendString(topics.Refusal)
	})
	app.Get("/go", func(c *fiber.Ctx) error {
		topics.Of(utils.CopyString(c.Query("key"))).Go()
		return nil
	})
	app.Get("/state", func(c *fiber.Ctx) error {
		return c.SendString(topics.Of(utils.CopyString(c.Query("key"))).State())
	})
	topics.Served(app.Listen, app.ListenTLS)
}
