# The channel between workers, with a thread of its own. Outside the supervisor
# it does nothing.
require 'json'
require 'socket'

class Channel
  def initialize
    @handlers, @waiting, @next, @lock = {}, {}, 0, Mutex.new
    @on_message = @on_lost = ->(_) {}
    @socket = open_socket
    Thread.new { read } if @socket
  end

  def on_message(&block) = @on_message = block
  def on_lost(&block) = @on_lost = block

  # Sends an object to all other ready workers.
  def broadcast(**members) = write({ broadcast: true, **members })

  # Sends data to the other workers that have subscribed to the topic. The last `retain` can be replayed.
  def publish(topic, data = nil, to: 'others', retain: nil) = ask({ publish: topic, data: data, to: to, retain: retain })

  # Calls the block with topic and data of each message, and of the last `replay` before; what it returns is the reply to a request.
  def subscribe(topic, replay: false, &block)
    @lock.synchronize { @handlers[topic] = block }
    ask({ subscribe: topic, replay: replay })
  end

  # Asks one other worker that has subscribed to the topic, and waits. Not within a block of subscribe.
  def request(topic, data = nil, to: nil, timeout: 5)
    raise 'there is no channel' unless @socket

    queue = Queue.new
    id = @lock.synchronize { @waiting[@next += 1] = queue; @next }
    ask({ request: topic, id: id, data: data, to: to, timeout: (timeout * 1000).to_i }.reject { |name, value| name == :to && value.nil? })
    told = queue.pop
    told.key?('error') ? raise(told['error']) : told['data']
  end

  def metric(name, value) = ask({ metric: { name => value } })
  def ready = ask({ ready: true })

  private

  # The socket that SUPERVISOR_IPC tells of, if it is there: a grandchild has the variable, too.
  def open_socket
    number, device, inode = ENV.fetch('SUPERVISOR_IPC', '').split(':').map(&:to_i)
    return unless inode

    io = IO.for_fd(number, autoclose: false)
    UNIXSocket.for_fd(number) if io.stat.dev == device && io.stat.ino == inode
  rescue Errno::EBADF
    nil
  end

  def ask(ask) = write({ supervisor: ask })

  def write(value)
    line = "#{JSON.generate(value)}\n"
    @lock.synchronize { @socket&.write(line) }
  end

  def find(topic)
    found = @lock.synchronize do
      @handlers.find { |pattern, _| pattern == topic || pattern.end_with?('*') && topic.start_with?(pattern.chop) }
    end
    found ? found[1] : ->(_, _) {}
  end

  def read
    @socket.each_line do |line|
      message = JSON.parse(line)
      told = message['supervisor'] if message.is_a?(Hash)
      if told.nil? then @on_message.call(message)
      elsif told.key?('message') then find(told['message']).call(told['message'], told['data'])
      elsif told.key?('request')
        ask({ reply: told['id'], data: find(told['request']).call(told['request'], told['data']) })
      elsif told.key?('reply') then @lock.synchronize { @waiting.delete(told['reply']) }&.push(told)
      elsif told.key?('lost') then @on_lost.call(told['lost'])
      elsif told.key?('error') then warn("the channel: #{told['error']}")
      end
    end
  end
end
