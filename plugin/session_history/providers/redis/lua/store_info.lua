local store = KEYS[1]
if redis.call('HLEN', store) == 0 then
  redis.call('HSET', store, 'incarnation', ARGV[1], 'format', ARGV[2])
end
local info = redis.call('HMGET', store, 'incarnation', 'format', 'shard')
if ARGV[3] and not info[3] then
  redis.call('HSET', store, 'shard', ARGV[3])
  info[3] = ARGV[3]
end
return {DONE, info}
