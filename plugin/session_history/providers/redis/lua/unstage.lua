redis.call('UNLINK', unpack(KEYS))
return {DONE}
