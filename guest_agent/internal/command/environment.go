package command

import (
	"strings"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/failure"
	"ingle.dev/guest_agent/internal/users"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

type variables map[string]string

// environment is what a login as the account gives, with the wanted variables over it.
func environment(account users.Account, wanted map[string]string) (variables, error) {
	all := variables{
		"HOME":    account.Home,
		"USER":    account.Name,
		"LOGNAME": account.Name,
		"SHELL":   account.Shell,
		"PATH":    defaultPath,
	}
	for name, value := range wanted {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
			return nil, failure.New(agentpb.ErrorCode_ERROR_CODE_BAD_REQUEST,
				"environment variable %q: '=' and NUL are not allowed", name)
		}
		all[name] = value
	}
	return all, nil
}

func (v variables) list() []string {
	list := make([]string, 0, len(v))
	for name, value := range v {
		list = append(list, name+"="+value)
	}
	return list
}
