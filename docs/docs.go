// Package docs holds the pages that the program itself reads.
package docs

import _ "embed"

// Configuration is docs/configuration.md, from which the JSON Schema has what a
// struct cannot say.
//
//go:embed configuration.md
var Configuration string
