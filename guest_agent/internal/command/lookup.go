package command

import (
	"os"
	"path/filepath"
	"strings"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/failure"
)

// lookPath finds the program as a shell in that directory would: names with a slash as they are, others along the
// search path, where a file that can't be executed is passed over and only told of when nothing better follows.
func lookPath(name, searchPath, directory string) (string, error) {
	candidates := []string{name}
	if !strings.Contains(name, "/") {
		candidates = candidates[:0]
		for _, entry := range filepath.SplitList(searchPath) {
			if entry == "" {
				entry = "."
			}
			candidates = append(candidates, entry+"/"+name)
		}
	}
	notExecutable := ""
	for _, candidate := range candidates {
		if !filepath.IsAbs(candidate) {
			candidate = directory + "/" + candidate
		}
		info, err := os.Stat(candidate)
		if err != nil {
			continue
		}
		if info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return candidate, nil
		}
		notExecutable = candidate
	}
	if notExecutable != "" {
		return "", failure.New(agentpb.ErrorCode_ERROR_CODE_COMMAND_NOT_EXECUTABLE,
			"%s is not an executable file", notExecutable)
	}
	if strings.Contains(name, "/") {
		return "", failure.New(agentpb.ErrorCode_ERROR_CODE_COMMAND_NOT_FOUND, "no file %q in the guest", name)
	}
	return "", failure.New(agentpb.ErrorCode_ERROR_CODE_COMMAND_NOT_FOUND,
		"command %q not found in the guest's PATH %s", name, searchPath)
}
