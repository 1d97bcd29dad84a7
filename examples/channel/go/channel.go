// The channel between workers. Outside the supervisor it does nothing.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Channel is the way to the other workers, for any number of goroutines.
type Channel struct {
	events   Events
	mutex    sync.Mutex
	conn     net.Conn
	handlers map[string]Handler
	waiting  map[uint64]chan told
	next     uint64
}

// Events are what a worker may want to hear of beside topics; each may be left out.
type Events struct {
	Message func(line []byte)
	Lost    func(count int)
}

// Handler gets what comes about a topic; what it returns is the reply to a request.
type Handler func(topic string, data json.RawMessage) any

type told struct {
	Message *string         `json:"message"`
	Request *string         `json:"request"`
	Reply   *uint64         `json:"reply"`
	Lost    *int            `json:"lost"`
	Error   *string         `json:"error"`
	ID      uint64          `json:"id"`
	Data    json.RawMessage `json:"data"`
}

// OpenChannel begins to read.
func OpenChannel(events Events) (*Channel, error) {
	if events.Message == nil {
		events.Message = func([]byte) {}
	}
	if events.Lost == nil {
		events.Lost = func(int) {}
	}
	channel := &Channel{events: events, handlers: map[string]Handler{}, waiting: map[uint64]chan told{}}
	var number int
	var device, inode uint64
	if _, err := fmt.Sscanf(os.Getenv("SUPERVISOR_IPC"), "%d:%d:%d", &number, &device, &inode); err != nil {
		return channel, nil
	}
	// A grandchild has the variable, too, and not the descriptor.
	var stat syscall.Stat_t
	if syscall.Fstat(number, &stat) != nil || uint64(stat.Dev) != device || stat.Ino != inode {
		return channel, nil
	}
	file := os.NewFile(uintptr(number), "channel")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	channel.conn = conn
	go channel.read()
	return channel, nil
}

// Broadcast sends an object to all other ready workers.
func (c *Channel) Broadcast(members map[string]any) error {
	members["broadcast"] = true
	return c.write(members)
}

// Publish sends data to the other workers that have subscribed to the topic.
func (c *Channel) Publish(topic string, data any) error {
	return c.ask(map[string]any{"publish": topic, "data": data})
}

// PublishRetained does the same, and the last messages of the topic, as many as
// count, can be replayed.
func (c *Channel) PublishRetained(topic string, data any, count int) error {
	return c.ask(map[string]any{"publish": topic, "data": data, "retain": count})
}

// Subscribe has the handler called for each message, and for the last ones before
// that are retained, as many as replay.
func (c *Channel) Subscribe(topic string, replay int, handler Handler) error {
	c.mutex.Lock()
	c.handlers[topic] = handler
	c.mutex.Unlock()
	return c.ask(map[string]any{"subscribe": topic, "replay": replay})
}

// Request asks one other worker that has subscribed to the topic. Not within a handler.
func (c *Channel) Request(topic string, data any, timeout time.Duration) (json.RawMessage, error) {
	if c.conn == nil {
		return nil, errors.New("there is no channel")
	}
	answer := make(chan told, 1)
	c.mutex.Lock()
	c.next++
	id := c.next
	c.waiting[id] = answer
	c.mutex.Unlock()
	if err := c.ask(map[string]any{"request": topic, "id": id, "data": data, "timeout": timeout.Milliseconds()}); err != nil {
		return nil, err
	}
	if reply := <-answer; reply.Error != nil {
		return nil, errors.New(*reply.Error)
	} else {
		return reply.Data, nil
	}
}

// Metric sets a number that `supervisor status --json` shows.
func (c *Channel) Metric(name string, value float64) error {
	return c.ask(map[string]any{"metric": map[string]any{name: value}})
}

// Ready says that the worker is ready: it counts with `ready: ipc`.
func (c *Channel) Ready() error { return c.ask(map[string]any{"ready": true}) }

func (c *Channel) ask(ask map[string]any) error { return c.write(map[string]any{"supervisor": ask}) }

func (c *Channel) write(value any) error {
	if c.conn == nil {
		return nil
	}
	line, err := json.Marshal(value)
	if err != nil {
		return err
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	_, err = c.conn.Write(append(line, '\n'))
	return err
}

func (c *Channel) find(topic string) Handler {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for pattern, handler := range c.handlers {
		if pattern == topic || strings.HasSuffix(pattern, "*") && strings.HasPrefix(topic, pattern[:len(pattern)-1]) {
			return handler
		}
	}
	return func(string, json.RawMessage) any { return nil }
}

func (c *Channel) read() {
	reader := bufio.NewReader(c.conn)
	for {
		line, err := reader.ReadBytes('\n')
		if err != nil {
			break
		}
		var envelope struct {
			Supervisor *told `json:"supervisor"`
		}
		if json.Unmarshal(line, &envelope) != nil || envelope.Supervisor == nil {
			c.events.Message(line)
			continue
		}
		switch told := *envelope.Supervisor; {
		case told.Message != nil:
			c.find(*told.Message)(*told.Message, told.Data)
		case told.Request != nil:
			reply := c.find(*told.Request)(*told.Request, told.Data)
			if err := c.ask(map[string]any{"reply": told.ID, "data": reply}); err != nil {
				log.Print(err)
			}
		case told.Reply != nil:
			c.answer(*told.Reply, told)
		case told.Lost != nil:
			c.events.Lost(*told.Lost)
		case told.Error != nil:
			log.Printf("the channel: %s", *told.Error)
		}
	}
	closed := "the channel is closed"
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for id, answer := range c.waiting {
		delete(c.waiting, id)
		answer <- told{Error: &closed}
	}
}

func (c *Channel) answer(id uint64, reply told) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if answer, isThere := c.waiting[id]; isThere {
		delete(c.waiting, id)
		answer <- reply
	}
}
