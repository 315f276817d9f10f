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
		if err := CheckVariable(name, value); err != nil {
			return nil, err
		}
		all[name] = value
	}
	return all, nil
}

// CheckVariable says what is wrong with a variable.
func CheckVariable(name, value string) error {
	if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
		return failure.New(agentpb.ErrorCode_ERROR_CODE_BAD_REQUEST,
			"environment variable %.80q: '=' and NUL are not allowed", name)
	}
	return nil
}

func (v variables) list() []string {
	list := make([]string, 0, len(v))
	for name, value := range v {
		list = append(list, name+"="+value)
	}
	return list
}
