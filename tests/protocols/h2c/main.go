// Program h2c is a backend of the h2spec suite: `h2c ADDRESS` serves HTTP/2 with prior knowledge as Go's own library does.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"isthmus.dev/protocols/report"
)

const delayMax = time.Minute

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("h2c ADDRESS")
	}
	report.EndWithParent()
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening")
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := http.Server{Handler: http.HandlerFunc(echo), Protocols: protocols}
	log.Fatal(server.Serve(listener))
}

// Sends the request's body back; `?delay_ms=` does what it does at the lab's echo server.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		// The request is malformed or gone; nobody waits for an answer.
		panic(http.ErrAbortHandler)
	}
	ms, _ := strconv.Atoi(r.URL.Query().Get("delay_ms"))
	// What the client asked for, and not a wait.
	time.Sleep(min(time.Duration(ms)*time.Millisecond, delayMax))
	fmt.Fprintf(w, "%s %s\n%s", r.Method, r.Proto, body)
}
