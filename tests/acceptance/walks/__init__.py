"""What four kinds of people type, and what they see: `NAME.walk` beside `NAME.txt`.

A line of a walk:

    # words        the person's; they stay in the transcript
    $ command      typed once, on a terminal of 120 columns
    ? command      only shows something: on 120 columns, on 60, and in a pipe; the last two are kept where they differ
    | command      once, in a pipe; it may end in `2>/dev/null` or `| head -1`
    & command      runs on beside the others, on a terminal, until one of the next three
    ^C ^TERM ^KILL Ctrl-C or a signal for it; shows what it said
    > words        an answer to the question of the command above
    ^C at "words"  Ctrl-C for the command above when it says these words
    @ deed         by hand or by another program: a function in `people.py`

A command is `loracle …`, with variables before it and `< file` behind it if need be, or `export NAME=value`.
`python -m tests.acceptance.walks` writes all transcripts anew.
"""
