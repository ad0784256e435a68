"""What befalls long runs: kill -9 anywhere, a full disk, a folder that cannot be written, two runs at once, a clock set back.

python -m tests.faults.kill_loop --kills 50
"""
