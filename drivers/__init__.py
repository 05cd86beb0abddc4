"""What carries decisions to a real arm, and what is seen of it to whoever decides."""

from drivers import interrupts

interrupts.begin()
