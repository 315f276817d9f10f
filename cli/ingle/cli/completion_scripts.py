"""What `ingle completion` prints: for each shell, what has it ask `ingle` for the words that could come next.

Names come from a server, and paths from guests: no shell may take them for anything but words. In zsh and fish nothing
of them is evaluated; bash, which takes a word apart, gets it quoted. After a directory, or the VM of a path, more is to
come: no space. Where nothing is offered a file of this machine may be meant."""

VARIABLE = "_INGLE_COMPLETE"

# Names of images have colons, at which bash would otherwise begin a new word. A name with a * in it is a name. What a
# shell would take apart is quoted, but where an open quote does that already, and bytes that are no text, which would
# become a $''.
_BASH = r"""COMP_WORDBREAKS=${COMP_WORDBREAKS//:}
_ingle() {
    local - i word IFS=$'\n'
    set -f
    COMPREPLY=($(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD _INGLE_COMPLETE=complete_bash $1))
    [[ ${COMPREPLY[0]-} != *[/:] ]] || compopt -o nospace 2>/dev/null
    [[ ${COMP_WORDS[COMP_CWORD]-} != [\"\']* ]] || return 0
    for i in "${!COMPREPLY[@]}"; do
        printf -v word %q "${COMPREPLY[$i]}"
        [[ $word == [$]"'"* ]] || COMPREPLY[$i]=$word
    done
}
complete -o default -F _ingle ingle
"""

# As a file of $fpath it is the body of a function, and called for the words that it is to complete; sourced, it isn't.
_ZSH = r"""#compdef ingle
_ingle() {
    local line word
    local -a words_open told_open words_done told_done
    for line in "${(@f)$(_TYPER_COMPLETE_ARGS="${(j: :)words[1,CURRENT]}" _TYPER_COMPLETE_FISH_ACTION=get-args \
        _INGLE_COMPLETE=complete_fish command "${words[1]}" 2>/dev/null)}"; do
        word=${line%%$'\t'*}
        if [[ -z $word ]]; then
            continue
        elif [[ $word == *[/:] ]]; then
            words_open+=("$word") told_open+=("${line/$'\t'/  }")
        else
            words_done+=("$word") told_done+=("${line/$'\t'/  }")
        fi
    done
    if (( ! $#words_open && ! $#words_done )); then
        _files
        return
    fi
    (( ! $#words_open )) || compadd -l -S '' -d told_open -a words_open
    (( ! $#words_done )) || compadd -l -d told_done -a words_done
}
if [[ ${zsh_eval_context[-1]} == loadautofunc ]]; then
    _ingle "$@"
else
    compdef _ingle ingle
fi
"""

_FISH = r"""function __ingle_complete
    set -lx _TYPER_COMPLETE_ARGS (commandline -cp)
    set -lx _TYPER_COMPLETE_FISH_ACTION get-args
    set -lx _INGLE_COMPLETE complete_fish
    set -l command (commandline -op)[1]
    set -l offered (command $command 2>/dev/null)
    if test -n "$offered"
        printf '%s\n' $offered
    else
        __fish_complete_path (commandline -ct)
    end
end
complete --erase --command ingle
complete --command ingle --no-files --arguments '(__ingle_complete)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
