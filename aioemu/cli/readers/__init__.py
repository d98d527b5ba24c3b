"""What each option means: a function per row of the table, which puts the argument into the draft."""
