require 'socket'
require_relative 'channel'

CACHE = {}
channel = Channel.new
channel.subscribe('cache.*') { |topic, _| CACHE.delete(topic.delete_prefix('cache.')); nil }
channel.on_lost { CACHE.clear }

server = TCPServer.for_fd(3)
loop do
  client = server.accept
  verb, path = client.gets.to_s.split
  length = 0
  while (line = client.gets) && line != "\r\n"
    length = line.split(':')[1].to_i if line.downcase.start_with?('content-length:')
  end
  key = path.to_s.gsub(/[^a-zA-Z0-9]/, '')
  file = File.join(ENV.fetch('VALUES', '/tmp'), "value-#{key}")
  text = ''
  if verb == 'PUT'
    File.write(file, client.read(length))
    CACHE.delete(key)
    channel.publish("cache.#{key}")
  else
    CACHE[key] ||= File.exist?(file) ? File.read(file) : ''
    channel.metric('cached', CACHE.size)
    text = "#{CACHE[key]} of slot #{ENV['SUPERVISOR_INSTANCE']}\n"
  end
  client.write("HTTP/1.1 200 OK\r\nContent-Length: #{text.bytesize}\r\nConnection: close\r\n\r\n#{text}")
  client.close
end
