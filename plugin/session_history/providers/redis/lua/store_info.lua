local store = KEYS[1]
redis.call('HSETNX', store, 'incarnation', ARGV[1])
redis.call('HSETNX', store, 'format', ARGV[2])
if ARGV[3] then
  redis.call('HSETNX', store, 'shard', ARGV[3])
end
return {DONE, redis.call('HMGET', store, 'incarnation', 'format', 'shard')}
