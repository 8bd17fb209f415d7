local IN_PIECES, STUB, STUB_BYTES = 4, '>I4I2', 22

-- Move the pieces of an entry to their place, where they live as long as the session. Return false, and change nothing,
-- if they are not all staged. Most calls have no keys of pieces, and are spared the time to make the function.
local place_pieces = KEYS[6] and function(head, entry, seq, staged, pieces)
  local _, count = struct.unpack(STUB, entry, #entry - STUB_BYTES + 1)
  if redis.call('HLEN', staged) ~= count then
    return false
  end
  redis.call('UNLINK', pieces)
  redis.call('RENAME', staged, pieces)
  redis.call('PERSIST', pieces)
  local large, name = large_seqs(ids), integer(seq) .. ' '
  if not (' ' .. large):find(' ' .. name, 1, true) then
    head.id_count = head.id_count + redis.call('HSET', ids, LARGE, large .. name)
  end
  return true
end
