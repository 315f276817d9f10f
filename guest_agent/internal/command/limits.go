package command

import (
	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/failure"
	"ingle.dev/guest_agent/internal/launch"
)

const largestUmask = 0o777

// limitNames are those of setrlimit(2), in the order of their numbers.
var limitNames = [...]string{
	unix.RLIMIT_CPU:     "cpu",
	unix.RLIMIT_FSIZE:   "fsize",
	unix.RLIMIT_DATA:    "data",
	unix.RLIMIT_STACK:   "stack",
	unix.RLIMIT_CORE:    "core",
	unix.RLIMIT_RSS:     "rss",
	unix.RLIMIT_NPROC:   "nproc",
	unix.RLIMIT_NOFILE:  "nofile",
	unix.RLIMIT_MEMLOCK: "memlock",
	unix.RLIMIT_AS:      "as",
	10:                  "locks",
	11:                  "sigpending",
	12:                  "msgqueue",
	13:                  "nice",
	14:                  "rtprio",
	15:                  "rttime",
}

// umaskOf answers -1 for none.
func umaskOf(wanted *uint32) (int, error) {
	if wanted == nil {
		return -1, nil
	}
	if *wanted > largestUmask {
		return 0, badRequest("umask %#o: at most %#o is allowed", *wanted, largestUmask)
	}
	return int(*wanted), nil
}

func limitsOf(wanted []*agentpb.ResourceLimit) ([]launch.Limit, error) {
	var seen [len(limitNames)]bool
	limits := make([]launch.Limit, 0, len(wanted))
	for _, limit := range wanted {
		resource := int(limit.Resource)
		switch {
		case resource >= len(limitNames):
			return nil, badRequest("limit of resource %d: 0 to %d are known", resource, len(limitNames)-1)
		case seen[resource]:
			return nil, badRequest("limit %s: given twice", limitNames[resource])
		case limit.Soft > limit.Hard:
			return nil, badRequest("limit %s: soft %d is above hard %d", limitNames[resource], limit.Soft, limit.Hard)
		}
		seen[resource] = true
		limits = append(limits, launch.Limit{Resource: resource, Soft: limit.Soft, Hard: limit.Hard})
	}
	return limits, nil
}

// limitFailure is what the kernel says to more than the guest, or an agent that isn't root, can have.
func limitFailure(refused *launch.LimitError) error {
	return failure.New(agentpb.ErrorCode_ERROR_CODE_LIMIT_REFUSED, "cannot set limit %s to %d:%d: %v",
		limitNames[refused.Limit.Resource], refused.Limit.Soft, refused.Limit.Hard, refused.Errno)
}
