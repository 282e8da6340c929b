package sidecar

import "strings"

// writes are the commands that Redis 7 and 8 and Valkey 9 count among @write.
var writes = func() map[string]bool {
	m := map[string]bool{}
	for name := range strings.FieldsSeq(`
		append bitfield bitop blmove blmpop blpop brpop brpoplpush bzmpop bzpopmax bzpopmin copy decr decrby del
		delifeq expire expireat flushall flushdb geoadd georadius georadiusbymember geosearchstore getdel getex getset
		hdel hexpire hexpireat hgetdel hgetex hincrby hincrbyfloat hmset hpersist hpexpire hpexpireat hset hsetex
		hsetnx incr incrby incrbyfloat linsert lmove lmpop lpop lpush lpushx lrem lset ltrim migrate move mset msetex
		msetnx persist pexpire pexpireat pfadd pfdebug pfmerge psetex rename renamenx restore restore-asking rpop
		rpoplpush rpush rpushx sadd sdiffstore set setbit setex setnx setrange sinterstore smove sort spop srem
		sunionstore swapdb unlink vadd vrem vsetattr xack xadd xautoclaim xclaim xdel xgroup xreadgroup xsetid xtrim
		zadd zdiffstore zincrby zinterstore zmpop zpopmax zpopmin zrangestore zrem zremrangebylex zremrangebyrank
		zremrangebyscore zunionstore`) {
		m[name] = true
	}
	return m
}()
