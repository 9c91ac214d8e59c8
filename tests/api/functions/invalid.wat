(module (func (export "_start") (unknown.instruction)))
