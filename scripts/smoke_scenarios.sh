# The smoke run's scenarios, in their order. Each is a function that runs with `set -e` in a scratch directory of its
# own: whatever fails in it fails the scenario. To be sourced by smoke.sh.
# shellcheck shell=bash

# shellcheck disable=SC2034 # smoke.sh runs them
scenarios=(
  preflight
  pull_a_kernel
  pull_an_image
  a_command_in_a_vm_of_its_own
  the_exit_code_is_the_commands
  stdout_and_stderr_stay_apart
  five_megabytes_through_a_vm_unchanged
  two_runs_at_once
  environment_user_and_directory
  what_cannot_be_run_says_so
  bad_requests_change_nothing
  a_name_is_taken_once
  a_life
  many_at_once_each_once
  kill_and_prune
  a_shell_that_outlives_its_client
  a_shell_in_a_vm_of_its_own
  files_in_and_out
  a_server_in_a_vm
  how_a_vm_does
  an_image_of_ones_own
  vms_outlive_the_server
  operations_are_remembered
  completion
  nothing_is_left
)

# Those of smoke.sh --system.
# shellcheck disable=SC2034
system_scenarios=(
  a_system_install_is_healthy
  a_name_is_taken_once
  a_life_in_a_shared_network
  nothing_is_left_of_a_shared_network
  completion
)

# expect CODE COMMAND...: the command's exit code is CODE.
expect() {
  local wanted=$1 code=0
  shift
  "$@" || code=$?
  [ $code -eq "$wanted" ] || { echo "exit code $code, not $wanted: $*"; return 1; }
}

# refused TEXT COMMAND...: the command fails, and says TEXT.
refused() {
  local text=$1
  shift
  if "$@" 2>refusal; then echo "not refused: $*"; return 1; fi
  cat refusal
  grep -qiF -- "$text" refusal
}

# eventually COMMAND...: within half a minute it succeeds.
eventually() {
  for _ in {1..300}; do
    if "$@"; then return; fi
    sleep 0.1
  done
  echo "never: $*"
  return 1
}

# on_a_terminal CODE COMMAND [EXPECT [SEND EXPECT]...]: see scripts/on_a_terminal.py.
# shellcheck disable=SC2154 # smoke.sh has it
on_a_terminal() { TERM=xterm python "$repository/scripts/on_a_terminal.py" "$@"; }

everything() { ingle vm list --json && ingle image list --json && ingle kernel list --json; }

# value KEY: of the JSON object, or the number of elements of the array, on stdin.
value() { env -u COVERAGE_PROCESS_START python -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
count() { env -u COVERAGE_PROCESS_START python -c 'import json, sys; print(len(json.load(sys.stdin)))'; }
first() { env -u COVERAGE_PROCESS_START python -c 'import json, sys; print(json.load(sys.stdin)[0][sys.argv[1]])' "$1"; }
vm_value() { ingle vm show --json "$1" | value "$2"; }

preflight() {
  ingle doctor
  ingle doctor --json | value checks
  ingle version
}

pull_a_kernel() {
  ingle kernel catalog | grep debian
  ingle kernel pull debian
  ingle kernel list | grep debian
  ingle kernel show debian
}

pull_an_image() {
  ingle image pull debian:bookworm
  ingle image list | grep debian:bookworm
  ingle image show debian:bookworm
}

a_command_in_a_vm_of_its_own() {
  ingle vm run --rm -- cat /etc/os-release | grep 'VERSION_CODENAME=bookworm'
  [ "$(ingle vm list --json | count)" -eq 0 ]
}

the_exit_code_is_the_commands() {
  expect 42 ingle vm run --rm -- sh -c 'exit 42'
}

stdout_and_stderr_stay_apart() {
  ingle vm run --rm -- sh -c 'echo out; echo err >&2' >out 2>err
  [ "$(cat out)" = out ]
  [ "$(cat err)" = err ]
}

five_megabytes_through_a_vm_unchanged() {
  head -c 5000000 /dev/urandom >sent
  ingle vm run --rm -- cat <sent >received
  cmp sent received
}

two_runs_at_once() {
  ingle vm run --rm -- echo 1 >one &
  ingle vm run --rm -- echo 2 >two
  wait $!
  [ "$(cat one two | tr '\n' ' ')" = "1 2 " ]
}

environment_user_and_directory() {
  # shellcheck disable=SC2016 # the guest's shell expands it
  ingle vm run --rm --env GREETING=hello --user nobody --workdir /tmp -- sh -c 'echo $GREETING $(id -un) $(pwd)' >said
  [ "$(cat said)" = "hello nobody /tmp" ]
}

what_cannot_be_run_says_so() {
  ingle vm create --name cannot
  expect 127 ingle vm exec cannot -- no-such-command
  expect 126 ingle vm exec cannot -- /etc/passwd
  expect 126 ingle vm exec --user nobody-at-all cannot -- true
  expect 126 ingle vm exec --workdir /no/such/place cannot -- true
  ingle vm delete --force cannot
}

bad_requests_change_nothing() {
  everything >before
  refused vcpu ingle vm run --rm --vcpu 0 -- true
  refused vcpu ingle vm create --vcpu 4096
  refused memory ingle vm create --memory 16M
  refused disk ingle vm create --disk-size 1M
  refused name ingle vm create --name 'Not a label'
  refused image ingle vm create --image no-such-image
  refused kernel ingle vm create --kernel no-such-kernel
  refused signal ingle vm kill --signal NONSENSE nobody
  refused 'no VM' ingle vm start nobody
  head -c 100000 /dev/urandom >noise
  refused kernel ingle kernel import noise --name noise
  refused image ingle image register --name noise --rootfs noise
  everything | cmp - before
}

a_name_is_taken_once() {
  ingle vm create --no-start --name twin
  refused twin ingle vm create --no-start --name twin
  [ "$(vm_value twin state)" = stopped ]
  ingle vm delete twin
}

a_life() {
  ingle vm create --no-start --name life --memory 256M --env PLACE=here
  refused stopped ingle vm exec life -- true
  ingle vm start life
  # shellcheck disable=SC2016 # the guest's shell expands it
  [ "$(ingle vm exec life -- sh -c 'echo $PLACE')" = here ]
  ingle vm exec life -- sh -c 'echo kept >/root/note'
  ingle vm stats life
  ingle vm list | grep life
  first=$(vm_value life boot_id)
  ingle vm restart life
  [ "$(vm_value life boot_id)" != "$first" ]
  [ "$(ingle vm exec life -- cat /root/note)" = kept ]
  refused running ingle vm update life --vcpu 1
  ingle vm stop life
  ingle vm update life --name afterlife --memory 320M
  ingle vm start afterlife
  ingle vm exec afterlife -- free -m
  ingle vm logs afterlife | grep .
  ingle vm delete --force afterlife
}

many_at_once_each_once() {
  ingle vm create --no-start --name one
  ingle vm create --no-start --name two
  ingle vm start one two one
  ingle vm stop one two
  expect 1 ingle vm delete one nobody two
  [ "$(ingle vm list --json | count)" -eq 0 ]
}

kill_and_prune() {
  ingle vm create --name alive
  ingle vm create --name dead
  ingle vm kill dead
  [ "$(vm_value dead state)" = stopped ]
  ingle vm prune --force
  [ "$(ingle vm list --json | count)" -eq 1 ]
  ingle vm kill --signal TERM alive
  ingle vm delete alive
}

a_shell_that_outlives_its_client() {
  ingle vm create --name term
  # shellcheck disable=SC2016 # the guest's shell expands it
  on_a_terminal 0 'ingle vm shell term' '# ' 'kept=here; echo one-$kept\r' one-here '\x10\x11' 'come back: ingle vm shell term'
  ingle vm session list term | grep 'init *no *80x24'
  # shellcheck disable=SC2016
  on_a_terminal 3 'ingle vm shell term' one-here 'echo two-$kept; exit 3\r' two-here
  on_a_terminal 5 'ingle vm exec -t term -- sh -c "stty size; exit 5"' '24 80'
  [ "$(ingle vm session list --json term | count)" -eq 0 ]
  on_a_terminal 0 'ingle vm shell --new term' '# ' '\x10\x11' 'ingle vm session attach term s-'
  session=$(ingle vm session list --json term | first id)
  on_a_terminal 0 "ingle vm session attach term $session" '# ' '\x10\x11' detached
  ingle vm session kill term "$session"
  [ "$(ingle vm session list --json term | count)" -eq 0 ]
  refused 'a terminal is needed' ingle vm shell term
  ingle vm delete --force term
}

a_shell_in_a_vm_of_its_own() {
  on_a_terminal 7 'ingle vm run --rm' '# ' 'exit 7\r'
  [ "$(ingle vm list --json | count)" -eq 0 ]
  expect 2 ingle vm run
}

files_in_and_out() {
  ingle vm create --name files
  mkdir -p tree/sub
  echo index >tree/index.html
  chmod 640 tree/index.html
  ln -s index.html tree/link
  head -c 300000 /dev/urandom >tree/sub/noise
  ingle vm cp tree files:/srv
  ingle vm exec files -- cat /srv/tree/sub/noise | cmp - tree/sub/noise
  ingle vm cp files:/srv/tree back
  diff --recursive --no-dereference tree back
  [ "$(stat -c %a back/index.html)" = 640 ]
  ingle vm cp files:/etc/hostname .
  [ "$(cat hostname)" = files ]
  tar -c tree | ingle vm cp - files:/opt
  ingle vm cp files:/opt/tree - | tar -t | grep '^tree/sub/noise$'
  echo hello | ingle vm file write --mode 600 files /root/note
  [ "$(ingle vm file cat files /root/note)" = hello ]
  ingle vm file ls files /root | grep -e '-0600.*note'
  ingle vm file stat files /root/note
  ingle vm file mkdir files /root/directory
  ingle vm file mv files /root/note /root/directory/note
  refused directory ingle vm file rm files /root/directory
  ingle vm file rm --recursive files /root/directory
  refused '/root/directory' ingle vm file cat files /root/directory/note
  ingle vm delete --force files
}

# said_at ADDRESS:PORT: all that a server says.
said_at() { exec 3<>"/dev/tcp/${1%:*}/${1##*:}" && cat <&3 && exec 3>&-; }

has_lines() { [ "$(wc -l <"$2")" -ge "$1" ]; }
listens() { ingle vm ports "$1" | grep "$2"; }

a_server_in_a_vm() {
  ingle vm create --name server
  # shellcheck disable=SC2016 # perl expands it
  ingle vm exec --detach server -- perl -e 'use IO::Socket::INET;
    my $server = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 8080, Listen => 5);
    while (my $caller = $server->accept) { print $caller "hello from " . `hostname`; close $caller }'
  # shellcheck disable=SC2016
  ingle vm exec --detach server -- perl -e 'use IO::Socket::UNIX;
    my $server = IO::Socket::UNIX->new(Local => "/run/shout.sock", Listen => 5);
    while (my $caller = $server->accept) { local $/; my $all = <$caller>; print $caller uc $all; close $caller }'
  eventually listens server '8080.*perl'
  ingle vm ports --json server | grep 8080
  # A shell has its background commands ignore SIGINT.
  env --default-signal=INT ingle vm forward server 0:8080 0:81 >forwards 2>complaints &
  forward=$!
  eventually has_lines 2 forwards
  greeting=$(sed -n '1s/ -> .*//p' forwards) nobody=$(sed -n '2s/ -> .*//p' forwards)
  [ "$(said_at "$greeting")" = 'hello from server' ]
  expect 1 said_at "$nobody"
  eventually grep 'nobody listens on port 81' complaints
  [ "$(said_at "$greeting")" = 'hello from server' ]
  kill -INT $forward
  expect 130 wait $forward
  [ "$(echo louder | ingle vm forward server --stdio /run/shout.sock)" = LOUDER ]
  refused 'nobody listens' ingle vm forward server --stdio 81
  ingle vm stop server
  refused stopped ingle vm ports server
  refused 'not running' ingle vm forward server 0:8080
  ingle vm delete server
}

how_a_vm_does() {
  ingle vm create --name works
  ingle vm create --name rests --no-start
  ingle vm stats | tee table
  grep works table
  expect 1 grep rests table
  ingle vm stats --json works | tee stats
  [ "$(first reference <stats)" = works ]
  refused stopped ingle vm stats rests
  env --default-signal=INT ingle vm stats --watch --interval 200ms --json works >looks &
  eventually has_lines 3 looks
  kill -INT $!
  expect 130 wait $!
  ingle vm delete --force works rests
}

an_image_of_ones_own() {
  mkdir -p tree/bin tree/etc
  cp "$(command -v busybox)" tree/bin/busybox
  ln -s busybox tree/bin/sh
  tar -C tree -cf tree.tar .
  ingle image register --name smallest --rootfs tree
  ingle image register --name from-a-tar --rootfs tree.tar
  [ "$(ingle vm run --rm --image smallest -- /bin/busybox echo small)" = small ]
  ingle vm create --no-start --name holds-it --image smallest
  refused 'used by' ingle image delete smallest
  ingle vm delete holds-it
  ingle image delete smallest
}

vms_outlive_the_server() {
  ingle vm create --name survivor
  boot=$(vm_value survivor boot_id)
  ingle server stop
  ingle server start
  [ "$(vm_value survivor boot_id)" = "$boot" ]
  ingle vm exec survivor -- true
  ingle vm delete --force survivor
}

operations_are_remembered() {
  ingle operation list | grep -i create
  last=$(ingle operation list --json | first id)
  ingle operation show "$last"
}

completion() {
  for shell in bash zsh fish; do ingle completion "$shell" | grep ingle; done
}

nothing_is_left() {
  [ "$(ingle vm list --json | count)" -eq 0 ]
  [ -z "$(find "$XDG_STATE_HOME/ingle/vms" -mindepth 1)" ]
  ingle server stop
  [ -z "$(processes_of_this_run)" ]
}

# -- with a system install, as root

a_system_install_is_healthy() {
  ingle system status
  [ "$(ingle server status --json | value system)" = True ]
  ingle version
}

a_life_in_a_shared_network() {
  ingle vm create --name shared --network smoke --nat --publish 18080:80 --memory 256M
  trap 'ingle vm delete --force shared' EXIT
  address=$(vm_value shared address)
  # What is in a set is for the kernel to say.
  nft list set inet ingle nat4 | grep -wF "$address"
  nft list map inet ingle ports4 | grep -F "tcp . 18080 : $address . 80"
  ingle vm update shared --nat off
  expect 1 grep -wF "$address" <(nft list set inet ingle nat4)
  ingle vm exec shared -- getent ahostsv4 shared.vm | grep -F "$address"
  boot=$(vm_value shared boot_id)
  ingle system restart
  [ "$(vm_value shared boot_id)" = "$boot" ]
  expect 3 ingle vm exec shared -- sh -c 'exit 3'
  refused 18080 ingle vm create --name late --network smoke --publish 18080:80
  ingle vm kill shared
  expect 1 grep -F "$address" <(nft list map inet ingle ports4)
  trap - EXIT
  ingle vm delete shared
}

nothing_is_left_of_a_shared_network() {
  [ "$(ingle vm list --json | count)" -eq 0 ]
  expect 1 grep ' ing[bt][0-9]' <(ip -oneline link)
  expect 1 grep '^ingle-' <(dmsetup ls)
  expect 1 grep /var/lib/ingle <(losetup --list)
  [ -z "$(find /var/lib/ingle/vms /run/ingle/server/vms -mindepth 1)" ]
}
