local session, id, entry = ARGV[1], ARGV[2], ARGV[3]
local generation, seq, rewrites, mark = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local head, past, raw, flaw = find(session, entries, ids)
flaw = flaw or head and missing(head)
if flaw then
  return {CORRUPT, flaw, raw}
elseif not head then
  return {NOTHING, shown(past, raw)}
elseif head.mark == mark then
  return {DONE, raw}
elseif head.generation ~= generation or head.rewrites ~= rewrites or redis.call('HGET', ids, id) ~= whole(seq) then
  return {NOTHING, raw}
end
head.rewrites = rewrites + 1
head.mark = mark
head.snapshot_seq, head.snapshot_id, head.summary = tonumber(ARGV[8] or 0), ARGV[9] or '', ARGV[10] or ''
raw = closed(head)
redis.call('LSET', entries, whole(seq - 1), entry)
redis.call('HSET', heads, session, raw)
return {DONE, raw}
