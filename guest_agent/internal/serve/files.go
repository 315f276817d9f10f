package serve

import (
	"errors"
	"io"
	"strings"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/failure"
	"ingle.dev/guest_agent/internal/files"
	"ingle.dev/guest_agent/internal/frame"
	"ingle.dev/guest_agent/internal/users"
)

// dataSize is how much a DATA frame that we send holds at most.
const dataSize = 256 * 1024

// queueSize is how much of a file may be on its way to a caller.
const queueSize = 1024 * 1024

// queuedData is the most of a file's end that is copied once more, to leave with the answer: who waits is woken once.
const queuedData = 16 * 1024

// operateOnFiles does what was asked, if it is about files, with the rights of whom it was asked for.
func (c *connection) operateOnFiles(request *agentpb.Request) (found bool, err error) {
	// Most answers leave with the greeting, and who waits is woken once and not twice; some take their time.
	unanswered := c.server.unanswered.begin(greetingDelay, func() { go func() { _ = c.writer.Flush() }() })
	defer func() { _ = c.server.unanswered.end(unanswered) }()
	switch asked := request.Operation.(type) {
	case *agentpb.Request_ReadFile:
		return true, c.withPath(asked.ReadFile, func(path string) error { return c.readFile(path, asked.ReadFile) })
	case *agentpb.Request_WriteFile:
		return true, c.withPath(asked.WriteFile, func(path string) error { return c.writeFile(path, asked.WriteFile) })
	case *agentpb.Request_StatFile:
		return true, c.withPath(asked.StatFile, func(path string) error { return c.statFile(path, asked.StatFile) })
	case *agentpb.Request_ListDirectory:
		return true, c.withPath(asked.ListDirectory, func(path string) error {
			return c.listDirectory(path, asked.ListDirectory)
		})
	case *agentpb.Request_MakeDirectory:
		return true, c.withPath(asked.MakeDirectory, func(path string) error {
			return c.makeDirectory(path, asked.MakeDirectory)
		})
	case *agentpb.Request_Remove:
		return true, c.withPath(asked.Remove, func(path string) error { return c.remove(path, asked.Remove) })
	case *agentpb.Request_Rename:
		return true, c.withPath(asked.Rename, func(path string) error { return c.rename(path, asked.Rename) })
	case *agentpb.Request_CopyIn:
		return true, c.withPath(asked.CopyIn, func(path string) error { return c.copyIn(path, asked.CopyIn) })
	case *agentpb.Request_CopyOut:
		return true, c.withPath(asked.CopyOut, func(path string) error { return c.copyOut(path, asked.CopyOut) })
	}
	return false, nil
}

// withPath looks the user up, resolves the path, and works with the user's rights.
func (c *connection) withPath(
	request interface {
		GetPath() string
		GetRawPath() []byte
		GetUser() string
	},
	work func(path string) error,
) error {
	account, err := users.System.LookupForFiles(request.GetUser())
	if err != nil {
		return unknownAccount(err)
	}
	path, err := files.Resolve(account.Home, either(request.GetPath(), request.GetRawPath()))
	if err != nil {
		return err
	}
	return account.Do(func() error {
		return c.lively(func() error { return work(path) })
	})
}

// either is a text as it is, which a field of text can't hold if it isn't UTF-8.
func either(text string, raw []byte) string {
	if len(raw) > 0 {
		return string(raw)
	}
	return text
}

func unknownAccount(err error) error {
	var noUser users.NotFoundError
	var noGroup users.GroupNotFoundError
	if errors.As(err, &noUser) || errors.As(err, &noGroup) {
		return failure.New(agentpb.ErrorCode_ERROR_CODE_USER_NOT_FOUND, "%v", err)
	}
	return err
}

func attributes(mode *uint32, owner string) (files.Attributes, error) {
	uid, gid, err := users.System.Owner(owner)
	return files.Attributes{Mode: mode, UID: uid, GID: gid}, unknownAccount(err)
}

func (c *connection) readFile(path string, request *agentpb.ReadFileRequest) error {
	sink := newDataWriter(c)
	defer sink.close()
	response, err := files.Read(path, request, sink)
	if err == nil {
		err = sink.end()
	}
	if err != nil {
		return err
	}
	return c.respond(&agentpb.Response{Result: &agentpb.Response_ReadFile{ReadFile: response}})
}

func (c *connection) writeFile(path string, request *agentpb.WriteFileRequest) error {
	wanted, err := attributes(request.Mode, request.Owner)
	if err != nil {
		return err
	}
	write := files.Write
	if request.Append {
		write = files.Append
	}
	info, err := write(path, wanted, request.Parents, &dataReader{reader: upload{c}})
	if err != nil {
		return err
	}
	return c.respond(&agentpb.Response{
		Result: &agentpb.Response_WriteFile{WriteFile: &agentpb.WriteFileResponse{File: info}},
	})
}

func (c *connection) statFile(path string, request *agentpb.StatFileRequest) error {
	info, err := files.Stat(path, request.Follow)
	if err != nil {
		return err
	}
	return c.respond(&agentpb.Response{
		Result: &agentpb.Response_StatFile{StatFile: &agentpb.StatFileResponse{File: info}},
	})
}

func (c *connection) listDirectory(path string, request *agentpb.ListDirectoryRequest) error {
	limit := int(request.MaxEntries)
	if limit > files.MaxEntries {
		return badRequest("%d entries: at most %d are listed at once", limit, files.MaxEntries)
	}
	if limit == 0 {
		limit = files.MaxEntries
	}
	response, err := files.List(path, request.After, limit, func(entries []*agentpb.FileInfo) error {
		return c.send(frame.Entries, &agentpb.DirectoryEntries{Entries: entries})
	})
	if err != nil {
		return err
	}
	return c.respond(&agentpb.Response{
		Result: &agentpb.Response_ListDirectory{ListDirectory: response},
	})
}

func (c *connection) makeDirectory(path string, request *agentpb.MakeDirectoryRequest) error {
	wanted, err := attributes(request.Mode, request.Owner)
	if err != nil {
		return err
	}
	info, err := files.MakeDirectory(path, wanted, request.Parents)
	if err != nil {
		return err
	}
	return c.respond(&agentpb.Response{
		Result: &agentpb.Response_MakeDirectory{MakeDirectory: &agentpb.MakeDirectoryResponse{File: info}},
	})
}

func (c *connection) remove(path string, request *agentpb.RemoveRequest) error {
	if err := files.Remove(path, request.Recursive); err != nil {
		return err
	}
	return c.respond(&agentpb.Response{Result: &agentpb.Response_Remove{Remove: &agentpb.RemoveResponse{}}})
}

func (c *connection) rename(path string, request *agentpb.RenameRequest) error {
	account, err := users.System.LookupForFiles(request.User)
	if err != nil {
		return unknownAccount(err)
	}
	newPath, err := files.Resolve(account.Home, either(request.NewPath, request.RawNewPath))
	if err != nil {
		return err
	}
	if err := files.Rename(path, newPath, request.Replace); err != nil {
		return err
	}
	return c.respond(&agentpb.Response{Result: &agentpb.Response_Rename{Rename: &agentpb.RenameResponse{}}})
}

func (c *connection) copyIn(path string, request *agentpb.CopyInRequest) error {
	name := string(request.Name)
	if strings.ContainsAny(name, "/\x00") || name == "." || name == ".." {
		return badRequest("the name %q: it must be that of a file", name)
	}
	copied, err := files.Unpack(path, name, request.PreserveOwners, &dataReader{reader: upload{c}})
	if err != nil {
		return err
	}
	response := &agentpb.CopyInResponse{
		Entries: copied.Entries, Bytes: copied.Bytes, AttributesLeftOut: copied.AttributesLeftOut,
	}
	return c.respond(&agentpb.Response{Result: &agentpb.Response_CopyIn{CopyIn: response}})
}

func (c *connection) copyOut(path string, request *agentpb.CopyOutRequest) error {
	sink := newDataWriter(c)
	defer sink.close()
	copied, err := files.Pack(path, request.Contents, sink)
	if err == nil {
		err = sink.Flush()
	}
	if err != nil {
		return err
	}
	response := &agentpb.CopyOutResponse{
		Entries: copied.Entries, Bytes: copied.Bytes, AttributesLeftOut: copied.AttributesLeftOut,
	}
	return c.respond(&agentpb.Response{Result: &agentpb.Response_CopyOut{CopyOut: response}})
}

// dataWriter makes large DATA frames of whatever is written, or put into the Room that there is and then Filled, or
// passed on from a file. Flush sends the rest; close must follow.
type dataWriter struct {
	writer   *frame.Writer
	stream   *watchedStream
	buffer   []byte // begins with room for the header; there when it is needed
	giveBack func()
	pipeline *pipeline
}

func newDataWriter(c *connection) *dataWriter {
	return &dataWriter{writer: c.writer, stream: c.stream}
}

func (w *dataWriter) Write(data []byte) (int, error) {
	written := len(data)
	for len(data) > 0 {
		size := copy(w.Room(dataSize), data)
		data = data[size:]
		if err := w.Filled(size); err != nil {
			return 0, err
		}
	}
	return written, nil
}

// Room is where the next bytes go; never empty. How many are expected decides, the first time, how large it is.
func (w *dataWriter) Room(expected int) []byte {
	if w.buffer == nil {
		if expected > outputFrame {
			w.buffer, w.giveBack = aligned(make([]byte, dataAlignment+dataSize)), func() {}
		} else {
			w.buffer, w.giveBack = borrowBuffer(expected)
		}
		w.buffer = w.buffer[:frame.HeaderSize]
	}
	return w.buffer[len(w.buffer):cap(w.buffer)]
}

// Filled takes so many bytes that were put into the Room.
func (w *dataWriter) Filled(size int) error {
	w.buffer = w.buffer[:len(w.buffer)+size]
	if len(w.buffer) < cap(w.buffer) {
		return nil
	}
	return w.Flush()
}

// Pass sends at most so many bytes of a file, from where it is read next, and answers how many; 0: it ends there.
// errors.ErrUnsupported: this one has to be read.
func (w *dataWriter) Pass(file, most int) (int, error) {
	if err := w.Flush(); err != nil {
		return 0, err
	}
	if w.pipeline == nil {
		var err error
		if w.pipeline, err = newPipeline(w.stream, dataSize); err != nil {
			return 0, err
		}
		w.stream.widen(queueSize)
	}
	size, err := w.pipeline.fill(file, min(most, dataSize))
	if size == 0 || err != nil {
		return 0, err
	}
	err = w.writer.Precede(frame.Data, size, func(ahead []byte) error { return w.pipeline.drain(ahead, size) })
	w.stream.note(size)
	return size, err
}

func (w *dataWriter) Flush() error {
	if len(w.buffer) <= frame.HeaderSize {
		return nil
	}
	err := w.writer.WriteInPlace(frame.Data, w.buffer)
	w.buffer = w.buffer[:frame.HeaderSize]
	return err
}

// end sends the rest together with the answer that follows, or before it.
func (w *dataWriter) end() error {
	size := len(w.buffer) - frame.HeaderSize
	if size <= 0 || size > queuedData {
		return w.Flush()
	}
	w.writer.Queue(frame.Data, w.buffer[frame.HeaderSize:])
	return nil
}

func (w *dataWriter) close() {
	if w.buffer != nil {
		w.giveBack()
	}
	if w.pipeline != nil {
		w.pipeline.close()
	}
}

// upload is what a caller sends. One that sends no more may take the greeting as the sign to.
type upload struct{ *connection }

func (u upload) Read(buffer []byte) (int, error) {
	if u.reader.Buffered() == 0 {
		if err := u.writer.Flush(); err != nil {
			return 0, err
		}
	}
	return u.reader.Read(buffer)
}

// dataReader is what a caller sends as DATA, up to DATA_END; bulk data goes right into the buffer that is to be filled.
// A caller that leaves before the end is io.ErrUnexpectedEOF.
type dataReader struct {
	reader io.Reader
	left   int // of the frame that is being read
	ended  bool
}

func (r *dataReader) Read(buffer []byte) (int, error) {
	for r.left == 0 {
		if r.ended {
			return 0, io.EOF
		}
		kind, size, err := frame.Next(r.reader, frame.MaxPayload)
		switch {
		case err == io.EOF:
			return 0, io.ErrUnexpectedEOF
		case err != nil:
			return 0, err
		case kind == frame.Data:
			r.left = size
		case kind == frame.DataEnd && size == 0:
			r.ended = true
		default:
			return 0, badRequest("frame of type %d and size %d amid DATA", kind, size)
		}
	}
	size, err := r.reader.Read(buffer[:min(len(buffer), r.left)])
	r.left -= size
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return size, err
}
