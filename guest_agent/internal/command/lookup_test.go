package command

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/failure"
)

// tree makes files of these modes, and answers the directory they are in.
func tree(t *testing.T, files map[string]os.FileMode) string {
	t.Helper()
	root := t.TempDir()
	for name, mode := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestLookPath(t *testing.T) {
	root := tree(t, map[string]os.FileMode{"a/tool": 0o755, "b/tool": 0o755, "b/data": 0o644, "c/data": 0o755, "here": 0o755})
	a, b, c := root+"/a", root+"/b", root+"/c"
	for _, want := range []struct{ name, searchPath, found string }{
		{"tool", a + ":" + b, a + "/tool"},
		{"tool", "/nowhere:" + b + ":" + a, b + "/tool"},
		{"data", b + ":" + c, c + "/data"}, // not executable in b: the search goes on
		{a + "/tool", "", a + "/tool"},
		{"./here", "/nowhere", root + "/./here"},
		{"a/tool", b, a + "/tool"},
		{"here", "", ""},
		{"here", ":/nowhere", root + "/./here"}, // an empty entry is the working directory
		{"tool", "a", a + "/tool"},
	} {
		got, err := lookPath(want.name, want.searchPath, root)
		if got != want.found || (err == nil) != (want.found != "") {
			t.Errorf("%s along %q: %q, %v", want.name, want.searchPath, got, err)
		}
	}
}

func TestWhatIsNotFoundDiffersFromWhatIsNotExecutable(t *testing.T) {
	root := tree(t, map[string]os.FileMode{"b/data": 0o644})
	for name, code := range map[string]agentpb.ErrorCode{
		"none":    agentpb.ErrorCode_ERROR_CODE_COMMAND_NOT_FOUND,
		"./none":  agentpb.ErrorCode_ERROR_CODE_COMMAND_NOT_FOUND,
		"data":    agentpb.ErrorCode_ERROR_CODE_COMMAND_NOT_EXECUTABLE,
		"/":       agentpb.ErrorCode_ERROR_CODE_COMMAND_NOT_EXECUTABLE,
		"b/data":  agentpb.ErrorCode_ERROR_CODE_COMMAND_NOT_EXECUTABLE,
		"b/data/": agentpb.ErrorCode_ERROR_CODE_COMMAND_NOT_FOUND,
	} {
		_, err := lookPath(name, root+"/b", root)
		var known *failure.Error
		if !errors.As(err, &known) || known.Code != code {
			t.Errorf("%s: %v", name, err)
		}
	}
}
