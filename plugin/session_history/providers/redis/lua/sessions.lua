return {1, redis.call('HKEYS', KEYS[1])}
