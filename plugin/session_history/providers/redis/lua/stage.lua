redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PEXPIREAT', KEYS[1], integer(now() / 1000 + ARGV[3]))
return {DONE}
