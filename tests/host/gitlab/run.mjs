// gitlab-ci-local under Node.js 18 and 20 too, which have no union of sets yet
Set.prototype.union ??= function (other) { return new Set([...this, ...other]); };
await import(process.argv.splice(2, 1)[0]);
