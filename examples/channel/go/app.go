// go build -o app && supervisor start ecosystem.yaml
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

func main() {
	var cache sync.Map
	channel, err := OpenChannel(Events{Lost: func(int) { cache.Clear() }})
	if err != nil {
		log.Fatal(err)
	}
	channel.Subscribe("cache.*", 0, func(topic string, _ json.RawMessage) any {
		cache.Delete(strings.TrimPrefix(topic, "cache."))
		return nil
	})
	folder := os.Getenv("VALUES")
	if folder == "" {
		folder = "/tmp"
	}
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := filepath.Base(r.URL.Path)
		file := filepath.Join(folder, "value-"+key)
		if r.Method == http.MethodPut {
			body, _ := io.ReadAll(r.Body)
			if err := os.WriteFile(file, body, 0o644); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			cache.Delete(key)
			channel.Publish("cache."+key, nil)
			return
		}
		value, isCached := cache.Load(key)
		if !isCached {
			text, _ := os.ReadFile(file)
			value = string(text)
			cache.Store(key, value)
		}
		fmt.Fprintf(w, "%s of slot %s\n", value, os.Getenv("SUPERVISOR_INSTANCE"))
	})))
}
