# A web server of a gem, which Bundler has to find.
require "webrick"

marker = File.read("marker").strip
server = WEBrick::HTTPServer.new(BindAddress: "127.0.0.1", Port: ENV.fetch("PORT").to_i, AccessLog: [])
server.mount_proc("/") { |_request, response| response.body = "release #{marker}\n" }
trap("TERM") { server.shutdown }
server.start
