// A client in C#: dotnet run SOCKET VM

using System.Net.Sockets;
using Google.Protobuf;
using Google.Rpc;
using Grpc.Core;
using Grpc.Net.Client;
using Ingle.V1;

var (socket, vm) = (args[0], args[1]);
var handler = new SocketsHttpHandler
{
    ConnectCallback = async (_, cancelled) =>
    {
        var connection = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await connection.ConnectAsync(new UnixDomainSocketEndPoint(socket), cancelled);
        return new NetworkStream(connection, ownsSocket: true);
    },
};
using var channel = GrpcChannel.ForAddress("http://localhost", new GrpcChannelOptions { HttpHandler = handler });
var guest = new GuestService.GuestServiceClient(channel);
var vms = new VmService.VmServiceClient(channel);

await Exec();
await Upload();
var found = await vms.ListVmsAsync(new ListVmsRequest());
Tell("list", found.Vms.Any(each => each.Id == vm));
await Fail("error", "no-such-vm");
await Fail("long", new string('x', 100_000));
await Cancel();

async Task Exec()
{
    using var call = guest.Exec();
    var headers = await call.ResponseHeadersAsync; // before anything was said
    Console.WriteLine($"op_id {headers.GetValue("ingle-op-id")}");
    var start = new ExecStart { Vm = vm, Argv = { "tr", "a-z", "A-Z" }, OpenStdin = true };
    await call.RequestStream.WriteAsync(new ExecRequest { Start = start });
    await call.RequestStream.WriteAsync(new ExecRequest { StdinData = ByteString.CopyFromUtf8("hello") });
    await call.RequestStream.WriteAsync(new ExecRequest { StdinEof = new ExecStdinEof() });
    var said = "";
    await foreach (var response in call.ResponseStream.ReadAllAsync())
    {
        said += response.StdoutData.ToStringUtf8();
        if (response.Exited is not null)
            Console.WriteLine($"exec {said} {response.Exited.ExitCode}");
    }
}

async Task Upload()
{
    using var call = guest.WriteFile();
    await call.RequestStream.WriteAsync(new WriteFileRequest { Start = new WriteFileStart { Vm = vm, Path = "/tmp/csharp" } });
    await call.RequestStream.WriteAsync(new WriteFileRequest { Data = ByteString.CopyFromUtf8("csharp") });
    await call.RequestStream.WriteAsync(new WriteFileRequest { End = new UploadEnd() });
    await call.RequestStream.CompleteAsync();
    Console.WriteLine($"upload {(await call).File.SizeBytes}");
}

async Task Fail(string name, string reference)
{
    using var call = vms.GetVmAsync(new GetVmRequest { Vm = reference });
    try
    {
        await call;
    }
    catch (RpcException error)
    {
        var info = error.GetRpcStatus()!.GetDetail<ErrorInfo>()!;
        var same = info.Metadata["op_id"] == (await call.ResponseHeadersAsync).GetValue("ingle-op-id");
        Tell($"{name} {Upper(error.StatusCode)} {info.Domain} {info.Reason}", same);
    }
}

async Task Cancel()
{
    using var cancellation = new CancellationTokenSource();
    using var call = guest.Exec(cancellationToken: cancellation.Token);
    await call.RequestStream.WriteAsync(new ExecRequest { Start = new ExecStart { Vm = vm, Argv = { "sleep", "98765" } } });
    await call.ResponseStream.MoveNext();
    if (call.ResponseStream.Current.Started is null)
        throw new InvalidOperationException("it did not start");
    cancellation.Cancel();
    try
    {
        await call.ResponseStream.MoveNext();
    }
    catch (RpcException error) when (error.StatusCode == StatusCode.Cancelled)
    {
        Console.WriteLine("cancelled CANCELLED");
    }
}

void Tell(string what, bool value) => Console.WriteLine($"{what} {(value ? "true" : "false")}");

// A code's name as other languages write it.
string Upper(StatusCode code) => code switch
{
    StatusCode.NotFound => "NOT_FOUND",
    StatusCode.InvalidArgument => "INVALID_ARGUMENT",
    _ => code.ToString(),
};
