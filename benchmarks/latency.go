package main

import "context"

func (b *bench) latency(context.Context) error { return nil }
