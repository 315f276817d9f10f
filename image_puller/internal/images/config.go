package images

import (
	"encoding/json"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ingle.dev/image_puller/internal/wire"
)

// What is kept of a configuration, in bytes of its JSON: it is in every answer that shows the image.
const mostOfConfig = 128 << 10

// ConfigOf is what an image says of itself, and the hashes of its layers.
func ConfigOf(content []byte) (wire.Config, []v1.Hash, error) {
	var file v1.ConfigFile
	if err := Read(content, &file); err != nil {
		return wire.Config{}, nil, wire.Fail(wire.Invalid, "its configuration can't be read: %v", err)
	}
	said := file.Config
	config := wire.Config{
		Entrypoint:  said.Entrypoint,
		Command:     said.Cmd,
		Environment: said.Env,
		User:        said.User,
		Directory:   said.WorkingDir,
		StopSignal:  said.StopSignal,
		Labels:      said.Labels,
	}
	for port := range said.ExposedPorts {
		config.ExposedPorts = append(config.ExposedPorts, port)
	}
	slices.Sort(config.ExposedPorts)
	if check := said.Healthcheck; check != nil {
		config.Healthcheck = &wire.Healthcheck{
			Test:                    check.Test,
			IntervalMilliseconds:    milliseconds(check.Interval),
			TimeoutMilliseconds:     milliseconds(check.Timeout),
			StartPeriodMilliseconds: milliseconds(check.StartPeriod),
			Retries:                 min(max(check.Retries, 0), 1<<31-1),
		}
	}
	kept, err := json.Marshal(config)
	if err != nil || len(kept) > mostOfConfig {
		return wire.Config{}, nil, wire.Fail(wire.Invalid, "its configuration has %d bytes; %d are allowed", len(kept), mostOfConfig)
	}
	return config, file.RootFS.DiffIDs, nil
}

func milliseconds(duration time.Duration) int64 { return max(duration.Milliseconds(), 0) }
