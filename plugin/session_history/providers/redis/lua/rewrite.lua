local session, id, origin, payload = ARGV[1], ARGV[3], ARGV[4], ARGV[5]
local generation, seq, rewrite_id, last_rewrite_id = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8], ARGV[9]
local pieces, staged = KEYS[6], KEYS[7]

local function rewrite()
  local head, tombstone, raw, flaw = find(session, entries, ids)
  flaw = flaw or head and missing_part(head)
  if flaw then
    return {CORRUPT, flaw, raw}
  elseif not head then
    return {UNCHANGED, visible(tombstone, raw)}
  elseif head.generation ~= generation then
    return {UNCHANGED, raw}
  elseif head.rewrite_id == rewrite_id then
    return {DONE, raw}
  elseif head.rewrite_id ~= last_rewrite_id or seq < 1 or seq > head.seq then
    return {UNCHANGED, raw}
  end
  local old = redis.call('LINDEX', entries, integer(seq - 1))
  local entry = decode_entry(old)
  if not entry then
    return {CORRUPT, 'an entry is unreadable', ''}
  elseif entry.names[1] ~= id or entry.origin ~= origin then
    return {UNCHANGED, raw}
  end
  local flags = entry.flags % IN_PIECES + (staged and IN_PIECES or 0)
  local new = string.char(flags) .. old:sub(2, entry.header_bytes) .. payload
  if staged and not is_staged(new, staged) then
    return {UNSTAGED}
  end
  redis.call('UNLINK', pieces)
  if staged then
    place_pieces(head, seq, staged, pieces)
    if head.expires > 0 then
      redis.call('PEXPIREAT', pieces, integer(math.ceil(head.expires / 1000)))
    end
  end
  head.rewrite_id = rewrite_id
  head.snapshot_seq, head.snapshot_origin, head.summary = tonumber(ARGV[10]) or 0, ARGV[11], ARGV[12]
  raw = encode_head(head)
  redis.call('LSET', entries, integer(seq - 1), new)
  redis.call('HSET', heads, session, raw)
  return {DONE, raw}
end

local answer = rewrite()
if staged then
  redis.call('UNLINK', staged)
end
return answer
