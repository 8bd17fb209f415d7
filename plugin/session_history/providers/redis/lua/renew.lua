local session, generation, seq, tail_origin = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local head, _, raw, flaw = find(session, entries, ids)
if flaw then
  return {CORRUPT, flaw, raw}
elseif not head or head.generation ~= generation or not ends_at(head, seq, tail_origin) then
  return {UNCHANGED}
end
head.heartbeat = head.heartbeat + 1
redis.call('HSET', heads, session, encode_head(head))
return {DONE}
