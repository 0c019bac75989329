// A Node app whose one dependency is not there before `npm ci`.
const fs = require("fs");
const http = require("http");
const greet = require("greet");

const marker = fs.readFileSync(`${__dirname}/marker`, "utf8").trim();
http.createServer((_, response) => response.end(greet(marker))).listen(process.env.PORT, "127.0.0.1");
