# In the guest before it is saved, and in the middle of something ever since: it holds two connections, one within the
# guest and one to the host, and says to whoever asks at its socket what has become of them, and what is random to it.
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;

my ($path, $host) = @ARGV;
$SIG{PIPE} = 'IGNORE';
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die "listen: $@";
my $within = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $listener->sockport) or die "within: $@";
my $other_end = $listener->accept or die "accept: $!";
my $outward = IO::Socket::INET->new(PeerAddr => $host) or die "outward: $@";
open my $kernel, '<:raw', '/dev/urandom' or die "urandom: $!";

sub echoed {
    my ($from, $answers) = @_;
    syswrite $from, "still there\n" or return "ended: $!";
    if ($answers) { sysread $answers, my $heard, 64; syswrite $answers, $heard; }
    IO::Select->new($from)->can_read(20) or return 'silent';
    my $count = sysread $from, my $said, 64;
    return !defined $count ? "ended: $!" : $count ? 'kept' : 'ended: closed';
}

die "outward: " . echoed($outward) if echoed($outward) ne 'kept';
my $asked = IO::Socket::UNIX->new(Local => $path, Listen => 5) or die "$path: $!";
while (1) {
    my $caller = $asked->accept or next;    # a freezer may interrupt it
    sysread $kernel, my $drawn, 16;
    print $caller "drawn_by_program ", unpack('H*', $drawn), "\nwithin ", echoed($within, $other_end),
        "\noutward ", echoed($outward), "\n";
}
