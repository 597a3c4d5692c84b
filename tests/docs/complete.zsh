#!/usr/bin/env -S zsh -f
# Prints what zsh would offer after pressing TAB: complete.zsh FOLDER-OF-COMPLETIONS 'COMMAND LINE'.
# zsh completes only in its line editor, so one is run on a terminal of its own, with compadd noting what it is given.
zmodload zsh/zpty
folder=$1 line=$2 out=$(mktemp) setup=$(mktemp)
cat >$setup <<END
fpath=(${(q)folder} \$fpath)
autoload -Uz compinit && compinit -u -D
compadd() {
    local -a hits
    builtin compadd -O hits "\$@"
    (( \$#hits )) && print -rl -- \$hits >>${(q)out}
    builtin compadd "\$@"
}
done-now() { zle complete-word; print -r -- .end >>${(q)out}; exit }
zle -N done-now
zle -C complete-word list-choices _main_complete
bindkey '^T' done-now
print -r -- READY
END
zpty z "TERM=dumb zsh -f -i"
zpty -w z "source ${(q)setup}"
while zpty -r z seen; do [[ $seen == READY* ]] && break; done
zpty -wn z "$line"$'\x14'
for ((i = 0; i < 100; i++)); do
    [[ $(tail -n 1 $out) == .end ]] && break
    sleep 0.05
done
zpty -d z
grep -vx '\.end' $out | sort -u
rm -f $out $setup
