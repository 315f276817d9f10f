// A client in Go: client SOCKET VM
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	inglev1 "ingle.dev/ingle/v1"
)

func main() {
	socket, vm := os.Args[1], os.Args[2]
	connection, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	defer connection.Close()
	guest, vms := inglev1.NewGuestServiceClient(connection), inglev1.NewVmServiceClient(connection)
	exec(guest, vm)
	upload(guest, vm)
	list(vms, vm)
	fail(vms, "error", "no-such-vm")
	fail(vms, "long", strings.Repeat("x", 100_000))
	cancel(guest, vm)
}

func exec(guest inglev1.GuestServiceClient, vm string) {
	call, err := guest.Exec(context.Background())
	check(err)
	header, err := call.Header() // before anything was said
	check(err)
	fmt.Println("op_id", header.Get("ingle-op-id")[0])
	start := &inglev1.ExecStart{Vm: vm, Argv: []string{"tr", "a-z", "A-Z"}, OpenStdin: true}
	check(call.Send(&inglev1.ExecRequest{Message: &inglev1.ExecRequest_Start{Start: start}}))
	check(call.Send(&inglev1.ExecRequest{Message: &inglev1.ExecRequest_StdinData{StdinData: []byte("hello")}}))
	check(call.Send(&inglev1.ExecRequest{Message: &inglev1.ExecRequest_StdinEof{StdinEof: &inglev1.ExecStdinEof{}}}))
	said := ""
	for {
		response, err := call.Recv()
		check(err)
		said += string(response.GetStdoutData())
		if exited := response.GetExited(); exited != nil {
			fmt.Println("exec", said, exited.ExitCode)
			return
		}
	}
}

func upload(guest inglev1.GuestServiceClient, vm string) {
	call, err := guest.WriteFile(context.Background())
	check(err)
	start := &inglev1.WriteFileStart{Vm: vm, Path: "/tmp/go"}
	check(call.Send(&inglev1.WriteFileRequest{Message: &inglev1.WriteFileRequest_Start{Start: start}}))
	check(call.Send(&inglev1.WriteFileRequest{Message: &inglev1.WriteFileRequest_Data{Data: []byte("go")}}))
	check(call.Send(&inglev1.WriteFileRequest{Message: &inglev1.WriteFileRequest_End{End: &inglev1.UploadEnd{}}}))
	response, err := call.CloseAndRecv()
	check(err)
	fmt.Println("upload", response.File.SizeBytes)
}

func list(vms inglev1.VmServiceClient, vm string) {
	response, err := vms.ListVms(context.Background(), &inglev1.ListVmsRequest{})
	check(err)
	found := false
	for _, each := range response.Vms {
		found = found || each.Id == vm
	}
	fmt.Println("list", found)
}

func fail(vms inglev1.VmServiceClient, name, reference string) {
	var header metadata.MD
	_, err := vms.GetVm(context.Background(), &inglev1.GetVmRequest{Vm: reference}, grpc.Header(&header))
	told := status.Convert(err)
	for _, detail := range told.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			same := info.Metadata["op_id"] == header.Get("ingle-op-id")[0]
			fmt.Println(name, upper(told.Code()), info.Domain, info.Reason, same)
		}
	}
}

func cancel(guest inglev1.GuestServiceClient, vm string) {
	background, cancel := context.WithCancel(context.Background())
	defer cancel()
	call, err := guest.Exec(background)
	check(err)
	start := &inglev1.ExecStart{Vm: vm, Argv: []string{"sleep", "98765"}}
	check(call.Send(&inglev1.ExecRequest{Message: &inglev1.ExecRequest_Start{Start: start}}))
	response, err := call.Recv()
	check(err)
	if response.GetStarted() == nil {
		log.Fatal("it did not start")
	}
	cancel()
	_, err = call.Recv()
	fmt.Println("cancelled", upper(status.Code(err)))
}

// upper is a code's name as other languages write it.
func upper(code codes.Code) string {
	return map[codes.Code]string{
		codes.NotFound: "NOT_FOUND", codes.InvalidArgument: "INVALID_ARGUMENT", codes.Canceled: "CANCELLED",
	}[code]
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
