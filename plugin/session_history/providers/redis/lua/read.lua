local session, start, stop, id = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local head, past, raw, flaw = find(session, entries, ids)
flaw = flaw or head and missing(head)
if flaw then
  return {CORRUPT, flaw, raw}
elseif not head then
  return {DONE, shown(past, raw), {}}
end
local answer = {DONE, raw, start and redis.call('LRANGE', entries, ARGV[2], stop) or {}}
local found = id and redis.call('HGET', ids, id)
if found then
  answer[4], answer[5] = found, redis.call('LINDEX', entries, found - 1)
end
return answer
