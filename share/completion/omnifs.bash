# bash completion for omnifs
_omnifs() {
    local cur prev words cword
    _init_completion || return
    local commands='mount umount run wait status models bench doctor'
    if ((cword == 1)); then
        mapfile -t COMPREPLY < <(compgen -W "$commands --help --version" -- "$cur")
        _filedir -d
        return
    fi
    # An option of the command, as its own --help lists them.
    if [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$("$1" "${words[1]}" --help 2>/dev/null |
            grep -o -- '--[a-z-]*' | sort -u)" -- "$cur")
        return
    fi
    case ${words[1]}:$prev in
    run:-m | run:--modality)
        mapfile -t COMPREPLY < <(compgen -W 'image video gif' -- "$cur") ;;
    run:-o | run:--output)
        _filedir -d ;;
    run:-s | run:--set)
        compopt -o nospace
        mapfile -t COMPREPLY < <(compgen -S = -W 'prompt negative_prompt mode profile size width
            height frames fps seconds steps guidance seed scheduler count strength return_format
            quality loop palette dither' -- "$cur") ;;
    run:*)
        _filedir '@(ini|json)' ;;
    models:models)
        mapfile -t COMPREPLY < <(compgen -W 'list inspect verify' -- "$cur") ;;
    models:inspect | models:verify)
        _filedir '@(safetensors|gguf)' ;;
    *)
        _filedir -d ;;
    esac
}
complete -F _omnifs omnifs
