local session, id, entry = ARGV[1], ARGV[2], ARGV[3]
local generation, seq, rewrites, call_id = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local head, tombstone, raw, flaw = find(session, entries, ids)
flaw = flaw or head and missing_part(head)
if flaw then
  return {CORRUPT, flaw, raw}
elseif not head then
  return {UNCHANGED, visible(tombstone, raw)}
elseif head.rewrite_id == call_id then
  return {DONE, raw} -- this call was sent before
elseif head.generation ~= generation or head.rewrites ~= rewrites or redis.call('HGET', ids, id) ~= integer(seq) then
  return {UNCHANGED, raw}
end
head.rewrites = rewrites + 1
head.rewrite_id = call_id
head.snapshot_seq, head.snapshot_id, head.summary = tonumber(ARGV[8] or 0), ARGV[9] or '', ARGV[10] or ''
raw = encode_head(head)
redis.call('LSET', entries, integer(seq - 1), entry)
redis.call('HSET', heads, session, raw)
return {DONE, raw}
