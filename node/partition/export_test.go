package partition

// Forget is the entry by which producers are forgotten.
var Forget = forget
