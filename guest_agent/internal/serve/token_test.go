package serve

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

func TestATokenIsTheSameInEveryByteOrAnother(t *testing.T) {
	ours := bytes.Repeat([]byte{7}, 32)
	if !sameToken(bytes.Clone(ours), ours) || !sameToken(nil, nil) {
		t.Error("the right token is refused")
	}
	for length := range 65 {
		if theirs := bytes.Repeat([]byte{7}, length); length != len(ours) && sameToken(theirs, ours) {
			t.Errorf("%d of its bytes are taken for all", length)
		}
	}
	for index := range ours {
		for bit := range 8 {
			theirs := bytes.Clone(ours)
			theirs[index] ^= 1 << bit
			if sameToken(theirs, ours) {
				t.Errorf("another bit %d in byte %d is not seen", bit, index)
			}
		}
	}
	if sameToken([]byte{0}, nil) || sameToken(nil, ours) {
		t.Error("no token is taken for one")
	}
}

// How long a comparison takes can't be tested on a machine with other work, but what it is made of can: digests of both,
// and crypto/subtle over all of them, with nothing in between that could end early.
func TestATokenIsComparedByNothingThatEndsEarly(t *testing.T) {
	packages, err := parser.ParseDir(token.NewFileSet(), ".", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var uses, body []string
	for name, file := range packages["serve"].Files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		ast.Inspect(file, func(node ast.Node) bool {
			switch found := node.(type) {
			case *ast.CallExpr:
				if callee := dotted(found.Fun); slices.ContainsFunc(found.Args, isToken) {
					uses = append(uses, callee)
					return false
				}
			case *ast.AssignStmt:
				if slices.ContainsFunc(found.Lhs, isToken) {
					uses = append(uses, "=")
					return false
				}
			case *ast.SelectorExpr:
				if isToken(found) {
					uses = append(uses, "elsewhere, in "+name)
				}
			case *ast.FuncDecl:
				if found.Name.Name == "sameToken" {
					body = steps(found.Body)
				}
			}
			return true
		})
	}
	slices.Sort(uses)
	if !slices.Equal(uses, []string{"=", "sameToken"}) {
		t.Errorf("tokens are used by %v", uses)
	}
	if want := []string{"sha256.Sum256", "sha256.Sum256", "subtle.ConstantTimeCompare"}; !slices.Equal(body, want) {
		t.Errorf("compared by %v", body)
	}
}

// steps are the calls in a body, in their order, and whatever could make it end early.
func steps(body *ast.BlockStmt) []string {
	var found []string
	ast.Inspect(body, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.CallExpr:
			found = append(found, dotted(node.Fun))
		case *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt, *ast.SwitchStmt:
			found = append(found, "a branch")
		case *ast.BinaryExpr:
			if node.Op == token.LAND || node.Op == token.LOR {
				found = append(found, "a branch")
			}
		}
		return true
	})
	return found
}

func isToken(expression ast.Expr) bool {
	selector, ok := expression.(*ast.SelectorExpr)
	return ok && selector.Sel.Name == "Token"
}

// dotted is a name, or a name in a package.
func dotted(expression ast.Expr) string {
	switch expression := expression.(type) {
	case *ast.Ident:
		return expression.Name
	case *ast.SelectorExpr:
		return dotted(expression.X) + "." + expression.Sel.Name
	}
	return "?"
}
