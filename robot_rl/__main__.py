"""`python -m robot_rl VERB` is the command `robot-rl`."""

from robot_rl.start import main

main()
