//go:build tools

// Package tools pins the program that this image builds, and its whole tree, in go.mod and go.sum.
package tools

import _ "github.com/xtls/xray-core/main"
