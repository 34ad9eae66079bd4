-- limit: how many rows and trails went.
return sweep(now(), ARGV[1])
