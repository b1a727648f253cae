package partition

// Forget is the entry by which producers are forgotten.
var Forget = forget

// Trim is the entry by which the log start moves.
var Trim = trim
