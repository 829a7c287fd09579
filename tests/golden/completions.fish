complete --keep-order --exclusive --command volantd --arguments "(COMPLETE=fish volantd -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
complete --keep-order --exclusive --command volar --arguments "(COMPLETE=fish volar -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
