// Package localsynctest runs a localsync cache inside an application's own tests:
// no servers, no network, no waiting. It plays the daemon, Kafka and the clock; a
// Redis in memory (miniredis) runs the real scripts.
//
//	h := localsynctest.New(t)
//	shows, err := localsync.NewModule(h.Cache(), localsync.ModuleConfig[int64]{Name: "show"}, localsync.JSON[Show](), load)
//
//	h.Commit("show", 42, Show{ID: 42, Title: "Hamlet"}) // a row changes, the daemon does its work
//	h.DropMessages(1)                                   // the next message is lost on its way to the nodes
//	h.Advance(time.Minute)                              // time goes by, with the daemon's heartbeats
//	h.AssertConverged()                                 // no node serves an old value as if it were new
//
// When a call of the harness returns, every node has taken it in. Only what a node
// does behind its readers (refreshes) goes on by itself; Idle waits for it.
//
// It also works within a testing/synctest bubble, if the harness is made there.
package localsynctest
